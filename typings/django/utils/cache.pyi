from collections.abc import Iterable

from django.http import HttpResponse

def patch_vary_headers(response: HttpResponse, newheaders: Iterable[str]) -> None: ...
