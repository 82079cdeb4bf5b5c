"""Small worlds in which exploration can be watched: `crl lab`."""
