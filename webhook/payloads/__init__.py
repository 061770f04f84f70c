"""One forge a file: how its deliveries are told apart, verified and read."""
