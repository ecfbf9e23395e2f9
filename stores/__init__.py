"""Where rows rest: online stores for serving, the offline log for training, checkpoints and dead letters for flows.

Import what you need by its full name, such as `from headrace.stores.embedded import EmbeddedStore`; importing this
package loads no vendor's library.
"""
