"""Django as a function, in one file: settings, a view with a form, its URLs."""

import os

from django import forms
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.template import engines
from django.urls import path

settings.configure(
    SECRET_KEY=os.urandom(32).hex(),  # for sessions that several replicas share, a secret of the function
    ALLOWED_HOSTS=["*"],  # of-watchdog passes on the name that the caller has used
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["django.middleware.csrf.CsrfViewMiddleware", "django.middleware.clickjacking.XFrameOptionsMiddleware"],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
)
application = get_wsgi_application()
PAGE = engines["django"].from_string(
    "<!doctype html>{% if greeting %}<p>{{ greeting }}</p>{% endif %}"
    '<form method="post">{% csrf_token %}{{ form }}<button>Send</button></form>'
)


class Name(forms.Form):
    name = forms.CharField(max_length=20)


def greet(request):
    form = Name(request.POST or None)
    greeting = f"Hello, {form.cleaned_data['name']}!" if form.is_valid() else ""
    return HttpResponse(PAGE.render({"form": form, "greeting": greeting}, request))


urlpatterns = [path("", greet)]


def handle(event, context):
    return application  # a WSGI application, which answers itself
