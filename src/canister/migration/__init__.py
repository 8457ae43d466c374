"""Moving the sessions of an application between a data directory and servers while it runs."""
