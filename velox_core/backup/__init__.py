"""Backups of an account's day: what goes in, how it is packed, checked, kept, sent elsewhere and put back.

- A backup is a folder with a manifest. It gets its name when everything in it was restored into an empty place and compared.
- Nothing here changes what it copies, and nothing in use is deleted: a restore moves aside what was there.
"""
