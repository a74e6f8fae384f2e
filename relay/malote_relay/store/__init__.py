"""What is kept on disk: accepted messages, their recipients' state, the hours' charges, events.

`model` has the records and the contract; `sqlite` keeps it in one file. Nothing here decides when or where
to deliver, and nobody else writes SQL.
"""
