"""The pilot's two functions: `api` takes orders in, `worker` processes them."""
