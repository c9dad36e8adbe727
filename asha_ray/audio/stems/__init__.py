"""Stems: one track taken apart into its instruments, block by block."""
