"""Put the shop page where the regions' files are."""

from __future__ import annotations

from collections.abc import Callable

from cdn.shop_config import shop_config
from cdn.store import ObjectStore
from tandem import regions as regions_file
from tandem import segments as segments_file
from tandem.settings import Settings

Say = Callable[[str], object]


def upload(settings: Settings, say: Say) -> None:
    """The page and its configuration into each bucket that a region has, once; only what changed is sent.

    A region without an `edge_url` or an `orders_url` in regions.toml is answered by what runs here.
    """
    found = regions_file.load(settings.config_folder)
    edges = {region.name: region.edge_url or settings.local_edge for region in found.region}
    orders = {region.name: region.orders_url or settings.local_orders for region in found.region}
    config = shop_config(found, segments_file.load(settings.config_folder), edges, orders)
    for where in dict.fromkeys(region.object_store for region in found.region):
        store = ObjectStore(where, settings.s3_access_key, settings.s3_secret, settings.s3_region)
        store.ensure_bucket()
        changed = store.put_shop(config)
        say(f"{where.public_url}/shop/index.html ({changed} files changed)")
