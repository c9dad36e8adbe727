"""Images to a model directory, with Ray Train."""
