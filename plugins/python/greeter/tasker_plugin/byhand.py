"""What the plugin does when a person starts it; plugins in Go do the same."""

import os
import sys

from google.protobuf import json_format

HELP = """{name} {version} is a Tasker plugin: a host starts it, see plugins.toml.

It serves:
{slots}
By hand:
  {file} describe
        print what it is, as JSON
  {file} --version
        print its name and version
  {file} --help
        print this
  tasker plugin check {path}
        check that it keeps the contract with its host
  tasker plugin run {path}
        call it once
"""


def run(description, path, arguments):
    """Executes the command in the arguments, and returns the exit code."""
    command = " ".join(arguments)
    text = HELP.format(
        name=description.name, version=description.version, file=os.path.basename(path), path=path,
        slots="".join(f"  {slot.kind:<8} {slot.name}\n" for slot in description.slots))
    if command == "describe":
        print(json_format.MessageToJson(description, preserving_proto_field_name=True))
    elif command in ("--version", "-version", "version"):
        print(description.name, description.version)
    elif command in ("--help", "-help", "-h", "help"):
        print(text, end="")
    else:
        unknown = f'"{command}" is not one of its commands.\n\n' if command else ""
        print(unknown + text, end="", file=sys.stderr)
        return 1
    return 0
