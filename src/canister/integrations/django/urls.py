"""Where the admin view goes; to be included before the admin's own URLs.

path("admin/sessions/", include("canister.integrations.django.urls")),
path("admin/", admin.site.urls),
"""

from django.contrib.admin import site
from django.urls import path

from canister.integrations.django.views import user_sessions

app_name = "canister"
urlpatterns = [path("<str:user_pk>/", site.admin_view(user_sessions), name="user-sessions")]
