"""From a cell to its measurement: asks the layers below for states, images and verdicts."""
