"""What an answer means.

`classify` gives it a class by `rules` that are data (replies.toml), with the `providers` that are known by their
hosts (providers.toml); `outcome` is what the store is told, `retry` says when it is tried again, `complaint` hears
when a destination has too much of us.
"""
