"""The routes of OpenAI's video API."""
