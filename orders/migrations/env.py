"""What alembic calls: runs the missing steps on the connection that `orders.migrate` gives, in its transaction."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
context.run_migrations()
