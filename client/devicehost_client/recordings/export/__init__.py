"""Recordings in the forms of others.

json_lines   an event on each line, decoded, for jq, pandas and the like
perfetto     a trace that ui.perfetto.dev opens
protobuf     the few words of the protobuf encoding that such a trace needs
"""
