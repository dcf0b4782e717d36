# Spark with Tandem's jobs: driver and executors of a cluster, and Airflow's workers (they call spark-submit).
#   docker build -f deploy/images/spark.Dockerfile -t tandem-spark .
FROM python:3.11-slim
RUN apt-get update \
 && apt-get install --yes --no-install-recommends openjdk-17-jre-headless procps \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/tandem
COPY deploy/uv.txt deploy/uv.txt
COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes -r deploy/uv.txt \
 && uv pip install --system --no-cache --require-hashes -r requirements.lock
COPY . .
# Spark's packages become a part of the image: no executor fetches anything at run time.
RUN uv pip install --system --no-cache --no-deps --no-build-isolation --editable . \
 && useradd --system --uid 10001 --create-home tandem && install -d -o tandem /data /opt/spark-packages
USER tandem
ENV TANDEM_HOME=/data TANDEM_SPARK_JARS=/opt/spark-packages
# No secret is made here: a placeholder keeps one out of the image.
RUN TANDEM_LAKE=s3a://none/lake TANDEM_S3_SECRET_KEY=unused python -m spark_jobs.session --fetch \
 && TANDEM_LAKE=s3a://none/lake TANDEM_S3_SECRET_KEY=unused python -m spark_jobs.session --fetch --streams
