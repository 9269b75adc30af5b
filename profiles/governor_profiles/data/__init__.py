"""The profiles that come with the package, one JSON file each."""
