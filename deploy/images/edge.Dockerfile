# The edge alone: no Spark, no Airflow. From the repository's root:
#   docker build -f deploy/images/edge.Dockerfile -t tandem-edge .
FROM python:3.11-slim
WORKDIR /opt/tandem
COPY deploy/uv.txt requirements.lock ./
RUN pip install --no-cache-dir --require-hashes -r uv.txt
COPY . .
# The lock fixes the versions; only what the extra `edge` asks for is installed.
RUN uv pip install --system --no-cache --constraints requirements.lock ".[edge]" \
 && useradd --system --uid 10001 --create-home tandem && install -d -o tandem /data
USER tandem
ENV TANDEM_HOME=/data TANDEM_EDGE_HOST=0.0.0.0 TANDEM_EDGE_PORT=8080
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=2)"]
ENTRYPOINT ["tandem", "serve"]
