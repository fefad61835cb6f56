"""A handler plugin in Python: greets somebody, and counts the letters.

What all plugins need is in tasker_plugin; this file does the work. A host
runs one file, so the folder is packed into one:

    /usr/bin/python3 -m zipapp -p /usr/bin/python3 -m greeter:main -o py-greeter greeter
    tasker plugin run py-greeter --slot py.greet --input step.json
"""

import json
import sys

import tasker_plugin


class Greeter:
    """Holds the options; its methods are the handlers, which run concurrently."""

    def __init__(self):
        self.greeting = "Hello"

    def configure(self, options):
        """Applies the options; yields (JSON pointer, problem) for each fault."""
        for name in options.keys() - {"greeting"}:
            yield "/" + name, "unknown option; known options: greeting"
        greeting = options.get("greeting", self.greeting)
        if not isinstance(greeting, str) or not greeting:
            yield "/greeting", "must be a non-empty string"
        else:
            self.greeting = greeting

    def greet(self, step):
        name = step.context.get("name")
        if not isinstance(name, str) or not name:
            raise tasker_plugin.Permanent("NOBODY", "there is nobody to greet")
        step.progress(50, "found somebody")
        return f"{self.greeting}, {name}!"

    def count(self, step):
        text = step.dependencies.get("greet")
        if not isinstance(text, str):
            raise tasker_plugin.Permanent("NO_GREETING", "the step greet has no text")
        for _ in range(int(step.config.get("pauses", 0))):
            step.pause(0.01)  # raises at the step's timeout, or when it is cancelled
        return {"text": text, "letters": len(text)}


def main():
    greeter = Greeter()
    sys.exit(tasker_plugin.serve(
        name="py-greeter",
        version="1.0.0",
        handlers={"py.greet": greeter.greet, "py.count": greeter.count},
        configure=greeter.configure,
        options_schema=json.dumps({
            "type": "object",
            "additionalProperties": False,
            "properties": {"greeting": {"type": "string", "default": "Hello"}},
        }),
    ))
