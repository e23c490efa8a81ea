"""What each framework is, in modules that import none of them: their entry points are `backproof.frameworks`."""
