"""What lies on the CDN? Keys, shards, manifest, cache headers; the storefront's own files."""
