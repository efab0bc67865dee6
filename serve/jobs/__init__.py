"""Jobs: requests whose record, progress and result outlive the connection that sent them."""
