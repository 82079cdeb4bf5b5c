"""`crl sweep`: many runs from one file, as processes here or as jobs of a cluster; started again, it goes on.

`plan` reads the file, `trial` knows one run by what lies in its directory, `backends` start runs, `driver` minds them.
"""
