from django.dispatch import Signal

got_request_exception: Signal
setting_changed: Signal
