# Checkout and relay (`tandem orders serve`, `tandem relay`): no Spark, no Airflow. From the repository's root:
#   docker build -f deploy/images/orders.Dockerfile -t tandem-orders .
FROM python:3.11-slim
WORKDIR /opt/tandem
COPY deploy/uv.txt requirements.lock ./
RUN pip install --no-cache-dir --require-hashes -r uv.txt
COPY . .
# The lock fixes the versions; only what the extra `orders` asks for is installed.
RUN uv pip install --system --no-cache --constraints requirements.lock ".[orders]" \
 && useradd --system --uid 10001 --create-home tandem && install -d -o tandem /data
USER tandem
ENV TANDEM_HOME=/data TANDEM_ORDERS_HOST=0.0.0.0 TANDEM_ORDERS_PORT=8081
EXPOSE 8081
CMD ["tandem", "orders", "serve"]
