"""On what does it run? The embedded servers, the demo, gateway, containers, dashboards."""
