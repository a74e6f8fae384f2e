"""Recipients that are no longer sent to: the tenant's suppression list.

An address that bounced for good, or whose owner complained, enters by rule (`rule`, pure) and leaves by itself after
a time, by a delivery, or by hand. A suppressed recipient is refused at RCPT. Whether an address may be on the list
is asked of a filter in memory (`filter`), so that RCPT costs nothing for the others; `suppressions` keeps list and
filter, `commands` shows them to people. What is queued already is not touched.
"""
