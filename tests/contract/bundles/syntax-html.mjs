<!doctype html>
<title>not found</title>
