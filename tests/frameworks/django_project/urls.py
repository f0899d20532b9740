from django.urls import path

from . import views

urlpatterns = [
    path("balance/<str:name>/", views.balance),
    path("execute/", views.execute),
    path("transfer/<str:source>/<str:target>/<int:amount>/", views.transfer),
]
