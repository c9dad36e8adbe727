"""Sound to curves: decoding, onset, beat and level features, decay envelopes. Pure functions."""
