"""Where tables are kept: settings and opening of catalogs."""
