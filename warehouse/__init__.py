"""What is stored? One declaration per Delta table, the release ledger, importers."""
