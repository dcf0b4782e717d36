"""How is it computed? DataFrame in, DataFrame out; kernels/ holds arithmetic without Spark."""
