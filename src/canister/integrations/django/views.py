"""The admin view of a user's sessions: who is logged in, since when and where; one or all can be ended.

It has no model and no table: what it shows are the sessions themselves. `urls` says where it goes.
"""

from typing import Any

from django.contrib.admin import site
from django.contrib.auth import get_permission_codename, get_user_model
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse

from canister.integrations.django.configuration import session_manager
from canister.integrations.django.signals import user_id
from canister.integrations.django.store import session_of
from canister.sessions import Session

ALL = "all"
"""What the form names in the place of a handle, to end every session but the one that asks."""


def user_sessions(request: HttpRequest, user_pk: str) -> HttpResponse:
    """Show the sessions of one user; by POST, end one of them or all.

    To see them takes the permission to view users, to end them the one to change users.

    Args:
        request: one of a member of the staff.
        user_pk: the user's primary key, as text.
    """
    model = get_user_model()
    may_change = _may(request, model, "change")
    if not (may_change or _may(request, model, "view")):
        raise PermissionDenied
    try:
        user = get_object_or_404(model, pk=user_pk)
    except (ValueError, ValidationError) as error:  # no key of this model is written so
        raise Http404 from error
    users, own = session_manager().users, session_of(request)
    if request.method == "POST":
        if not may_change:
            raise PermissionDenied
        _end(user, request.POST.get("end", ""), own)
        return HttpResponseRedirect(request.get_full_path())
    context = site.each_context(request) | {
        "title": f"Sessions of {user}",
        "sessions": users.sessions(user_id(user)),
        "own_handle": own.handle,
        "may_change": may_change,
        "opts": model._meta,
        "user_pk": user_pk,
    }
    return TemplateResponse(request, "canister/user_sessions.html", context)


def _end(user: Any, chosen: str, own: Session) -> None:
    users, user_key = session_manager().users, user_id(user)
    if chosen != ALL:
        users.end(user_key, chosen)
        return
    is_own = any(one.handle == own.handle for one in users.sessions(user_key))
    users.end_all(user_key, keep=own if is_own else "")


def _may(request: HttpRequest, model: Any, action: str) -> bool:
    name = f"{model._meta.app_label}.{get_permission_codename(action, model._meta)}"
    allowed: bool = request.user.has_perm(name)
    return allowed
