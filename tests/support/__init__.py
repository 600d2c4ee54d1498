"""What the tests of the server share: a real daemon to start and kill, and the clients that watch it."""
