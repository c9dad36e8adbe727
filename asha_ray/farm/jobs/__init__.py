"""Work that is given to a cluster: sent, watched, stopped and repeated, by way of storage."""
