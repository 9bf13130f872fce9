"""Two bundles of the same inputs, made as differently as one machine allows, and compared byte by byte."""
