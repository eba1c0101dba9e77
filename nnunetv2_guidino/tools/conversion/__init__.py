"""The machinery that the data set converters share."""
