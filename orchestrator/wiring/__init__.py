"""Settings to adapters, in one visible place. An adapter loads when something needs it, so that
`ps` and `--help` pay for none of them."""
