"""What was sold, and what is left? PostgreSQL: checkout, stock, returns, and the outbox that tells the others."""
