"""An OpenAI-compatible server that works offline: it composes activities from the prompt, and misbehaves when told to.

It stands in for a real endpoint in the local stack and in tests, on the wire, so that the `openai` package runs as it
does in production. Its model is called `teamfit-offline-composer`; a call costs well under a millisecond of CPU.
"""
