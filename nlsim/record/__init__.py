"""The run file: numpy in, netCDF-4 valid HDF5 out, and back as an xarray data set. No torch."""
