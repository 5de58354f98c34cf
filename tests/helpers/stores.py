"""A folder of characters, as it is after a look."""

from tango_rt.pipeline.store import CharacterStore


def looked(store: CharacterStore) -> CharacterStore:
    store.look()
    return store
