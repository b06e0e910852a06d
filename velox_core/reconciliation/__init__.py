"""Our books beside the broker's: what differs, and what explains it. Values in, values out; whoever calls acts."""
