"""`python -m asha_ray`."""

from asha_ray.cli.main import main

main()
