"""HTTP below the routes: limits of connections and bodies, and whole bodies."""
