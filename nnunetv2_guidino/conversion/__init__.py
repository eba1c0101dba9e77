"""What the data set converters share."""
