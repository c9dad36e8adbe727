"""Ray itself: starting and joining it, its tasks, and its actors as a crew."""
