# Topics and projectors (`tandem streams topics`, `tandem project`): no Spark, no Airflow. From the repository's root:
#   docker build -f deploy/images/streams.Dockerfile -t tandem-streams .
FROM python:3.11-slim
WORKDIR /opt/tandem
COPY deploy/uv.txt requirements.lock ./
RUN pip install --no-cache-dir --require-hashes -r uv.txt
COPY . .
# The lock fixes the versions; only what the extra `streams` asks for is installed.
RUN uv pip install --system --no-cache --constraints requirements.lock ".[streams]" \
 && useradd --system --uid 10001 --create-home tandem && install -d -o tandem /data
USER tandem
ENV TANDEM_HOME=/data
CMD ["tandem", "streams", "topics"]
